import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.cert.CertPath;
import java.security.cert.CertPathBuilder;
import java.security.cert.CertPathValidator;
import java.security.cert.CertPathValidatorException;
import java.security.cert.CertStore;
import java.security.cert.CertificateFactory;
import java.security.cert.CertificateRevokedException;
import java.security.cert.CollectionCertStoreParameters;
import java.security.cert.PKIXBuilderParameters;
import java.security.cert.PKIXParameters;
import java.security.cert.PKIXRevocationChecker;
import java.security.cert.PKIXRevocationChecker.Option;
import java.security.cert.TrustAnchor;
import java.security.cert.X509CertSelector;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The JDK's PKIX validator (RFC 5280, section 6). Each line of standard input asks one question, in fields that tabs
 * part; each line of standard output answers one:
 *
 *   means, scope, file of the anchor, file of the chain from the leaf upwards, files of status
 *
 * Means: "crl" looks at the CRLs in the files, "crldp" fetches them from where the certificates say, "ocsp" asks the
 * responder that the certificates name, "stapled" reads the leaf's OCSP response from the file, "none" looks at no status
 * and fetches the issuers that the chain lacks from where the certificates say. Scope: "leaf", or "chain" for every certificate but the anchor.
 */
public final class PkixValidate {
    private static final CertificateFactory X509 = x509();

    public static void main(String[] arguments) throws IOException {
        System.setProperty("com.sun.security.enableCRLDP", "true");
        System.setProperty("com.sun.security.enableAIAcaIssuers", "true");
        BufferedReader questions = new BufferedReader(new InputStreamReader(System.in));
        for (String line = questions.readLine(); line != null; line = questions.readLine()) {
            System.out.println(answer(line.split("\t", -1)));
        }
    }

    private static String answer(String[] question) {
        try {
            return judge(question[0], question[1].equals("leaf"), question[2], question[3], question[4]);
        } catch (GeneralSecurityException | IOException failure) {
            return refusal(failure);
        }
    }

    private static String judge(String means, boolean leafOnly, String anchor, String chain, String files)
            throws GeneralSecurityException, IOException {
        Set<TrustAnchor> anchors = Set.of(new TrustAnchor(certificates(anchor).get(0), null));
        List<X509Certificate> path = certificates(chain);
        if (means.equals("none")) {
            build(anchors, path);
        } else {
            validate(anchors, path, means, leafOnly, files);
        }
        return "VALID\t\t";
    }

    private static void build(Set<TrustAnchor> anchors, List<X509Certificate> known)
            throws GeneralSecurityException {
        X509CertSelector wanted = new X509CertSelector();
        wanted.setCertificate(known.get(0));
        PKIXBuilderParameters parameters = new PKIXBuilderParameters(anchors, wanted);
        parameters.setRevocationEnabled(false);
        parameters.addCertStore(CertStore.getInstance("Collection", new CollectionCertStoreParameters(known)));
        CertPathBuilder.getInstance("PKIX").build(parameters);
    }

    private static void validate(
            Set<TrustAnchor> anchors, List<X509Certificate> path, String means, boolean leafOnly, String files)
            throws GeneralSecurityException, IOException {
        CertPathValidator validator = CertPathValidator.getInstance("PKIX");
        PKIXRevocationChecker checker = (PKIXRevocationChecker) validator.getRevocationChecker();
        EnumSet<Option> options = EnumSet.of(Option.NO_FALLBACK);
        if (means.startsWith("crl")) {
            options.add(Option.PREFER_CRLS);
        }
        if (leafOnly) {
            options.add(Option.ONLY_END_ENTITY);
        }
        checker.setOptions(options);
        if (means.equals("stapled")) {
            checker.setOcspResponses(Map.of(path.get(0), Files.readAllBytes(Path.of(files))));
            checker.setOcspResponder(URI.create("http://localhost:1/nobody"));
        }
        PKIXParameters parameters = new PKIXParameters(anchors);
        parameters.addCertPathChecker(checker);
        if (means.equals("crl")) {
            parameters.addCertStore(crls(files));
        }
        CertPath certPath = X509.generateCertPath(path);
        validator.validate(certPath, parameters);
    }

    private static CertStore crls(String files) throws GeneralSecurityException, IOException {
        List<Object> found = new ArrayList<>();
        for (String file : files.split(",")) {
            if (!file.isEmpty()) {
                try (InputStream opened = Files.newInputStream(Path.of(file))) {
                    found.addAll(X509.generateCRLs(opened));
                }
            }
        }
        return CertStore.getInstance("Collection", new CollectionCertStoreParameters(found));
    }

    private static List<X509Certificate> certificates(String file) throws GeneralSecurityException, IOException {
        List<X509Certificate> found = new ArrayList<>();
        try (InputStream opened = Files.newInputStream(Path.of(file))) {
            X509.generateCertificates(opened).forEach(each -> found.add((X509Certificate) each));
        }
        return found;
    }

    /** REVOKED with its reason, or REFUSED with the validator's reason, and what it said. */
    private static String refusal(Exception failure) {
        for (Throwable cause = failure; cause != null; cause = cause.getCause()) {
            if (cause instanceof CertificateRevokedException) {
                CertificateRevokedException revoked = (CertificateRevokedException) cause;
                return line("REVOKED", revoked.getRevocationReason(), revoked);
            }
        }
        Object reason = failure.getClass().getSimpleName();
        if (failure instanceof CertPathValidatorException) {
            reason = ((CertPathValidatorException) failure).getReason();
        }
        return line("REFUSED", reason, failure);
    }

    private static String line(String status, Object reason, Exception failure) {
        return status + "\t" + reason + "\t" + String.valueOf(failure).replaceAll("\\s+", " ");
    }

    private static CertificateFactory x509() {
        try {
            return CertificateFactory.getInstance("X.509");
        } catch (GeneralSecurityException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
